"""The inference app: a form for each registered model, answered by its champion."""
