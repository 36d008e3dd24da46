"""The database of the account: tables, migrations, and the ledger in them."""
