"""The API of Trainyard and the contracts between its parts. Imports nothing but pydantic."""
