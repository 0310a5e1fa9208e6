"""What proves the project end to end: the local cluster, the user stories, the demo."""
