"""Due windows to the engine and back: staged, batched, under way, landed; or waiting when there is no room."""
