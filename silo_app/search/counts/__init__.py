"""How many cases are like this one: asked of every silo, told with noise, summed by the asker."""
