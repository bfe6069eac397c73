"""The gdkvm command."""
