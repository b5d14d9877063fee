"""The whole graph of profile tiny in a folder of its own: does it give the same bytes twice, and after any kill?"""
