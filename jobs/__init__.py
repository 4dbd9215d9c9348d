"""The verbs: one thin module for each `avs` command."""
