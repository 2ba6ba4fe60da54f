"""What a learned world is good for, one folder for each use. A use imports the lesson, and never another use."""
