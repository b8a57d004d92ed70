"""Reads what users wrote in playbooks, without running it; in web processes, and `yaml_outline` in a child process.

May import `models`, `system` and `errors`.
"""
