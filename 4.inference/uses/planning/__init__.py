"""Planning: imagine what different keys would lead to, and press those that end best."""
