"""Recall: do nearest images and texts belong together?"""
