"""The account's HTTP API: what each call was and cost, and the usage of keys over time."""
