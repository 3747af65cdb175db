"""Takes due windows through the engine: staged, batched, in flight, judged; or waiting when the engine has no room."""
