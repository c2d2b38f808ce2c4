"""pydistill inside the frameworks that people train with. Each module needs its framework, and nothing imports it."""
