"""A user's first hour, from the wheel in an empty directory."""
