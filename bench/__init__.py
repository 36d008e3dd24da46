"""What the gateway adds, measured beside other gateways in the same run. See README.md."""
