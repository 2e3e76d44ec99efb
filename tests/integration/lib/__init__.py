"""What the integration tests stand on: a server under test, git, HTTP, raw git wire, disks."""
