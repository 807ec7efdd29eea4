"""The API of Trainyard and the contracts between its parts; imports pydantic only."""
