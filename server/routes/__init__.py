"""What the server answers, one file per thing a user does; ``app.py`` brings them together."""
