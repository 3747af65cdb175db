"""Motion that nobody performed: a diffusion model of clips, its training, what it makes, and how good that is."""
