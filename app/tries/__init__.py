"""Single texts, typed into the app and read by a model that stays loaded."""
