"""Migrations: each file takes the database one version further. Forward only; one that has landed is not changed.

Run by migrate.py alone, all that are due in one transaction. May import nothing of ours.
"""
