"""`flansible doctor`: checks of this machine and installation.

Run by that command alone; every start of a part of the service loads `secret_files` and `open_services`, so this file
stays empty. May import all of the service but `web`, `worker` and `runner`.
"""
