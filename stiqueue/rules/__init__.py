"""The rules of one queue as pure data, without lock, clock or waiting; `engine` is the seam that the server calls."""
