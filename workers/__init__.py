"""The worker process: takes calls from the queue, asks the providers, sends the answers back."""
