"""Who is asking: users, passwords, API tokens, an operator's own login function; run by web, Flower and the commands.

May import `config`, `system` and `errors`.
"""
