"""What the service is measured against; each is a process of its own."""
