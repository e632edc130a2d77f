"""The prediction of losses, weights' displacement and its confidence."""
