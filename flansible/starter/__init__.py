"""`flansible init`: the files of a new service, and the command that puts them into a folder.

Run by that command alone. May import `identity`, `system` and `errors`.
"""
