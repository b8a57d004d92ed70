"""Monitoring of a running service: Flower, a process started by `flansible flower` or `flansible up`.

May import `identity`, `broker`, `store`, `config`, `models` and `errors`.
"""
