"""What a person reads about finished runs, made from their result files alone."""
