"""Where pins come from: the rendered showroom, or a list of somebody else's images."""
