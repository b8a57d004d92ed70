"""What forges and other services send to `POST /api/hooks/<name>`: is it signed, what is it, does it start something.

Pure: web processes read the bytes, look the definition up and launch. May import `notifications.signatures`, `models`
and `errors`.
"""
