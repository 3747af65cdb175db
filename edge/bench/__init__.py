"""`haad-edge bench`: made cameras in a process of their own, the real engine in another, and what was measured."""
