"""What is known of the cluster, and what a decision is made from."""
