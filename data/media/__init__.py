"""Pictures and clips, from file to pixels.

image_file      a picture file: opened, checked, turned upright, read as RGB
jpeg            a JPEG's pixels by a faster decoder than Pillow's, where it is installed
video           frames taken evenly from a clip, and a writer of small clips
folder          pictures from files, folders and globs, in batches
read_ahead      pictures decoded in threads, ahead of their use
"""
