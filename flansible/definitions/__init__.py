"""Definitions: what is set up once and used by name, in one form for all kinds.

A new kind is a Spec (flansible.models.definition_specs), a line in `kinds`, and what uses it: storing, conditions,
sealing, rights, `flansible apply` and the console's form are here once. The web processes use it. May import
`authorization`, `identity`, `history`, `sealing`, `config`, `models` and `errors`.
"""
