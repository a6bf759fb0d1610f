"""The page that app.py serves, and what its tabs compute.

page      what is entered and shown in the browser; all of Gradio is there
tabs      captions, answers, matches and a search, each of what a visitor has entered
folder    a folder's pictures, found by a text
result    what a model said, as lines of words, and the maps of each word
limits    what a visitor may ask, and how an upload is read
checkpoints   which model is asked for which task
"""
