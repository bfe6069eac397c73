"""Many servers as one: replicas on Ray Serve that hand live sessions to each other."""
