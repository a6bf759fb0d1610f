"""`python -m data.check CONFIG`: counts, wrong records, missing and unreadable images, and a contact sheet.

__main__        the command and its checks
tasks           for each task: its config, the formats of its records, and where their pictures are
corpus          the check of a web corpus, for CapFilt
split_check     what a check found
contact_sheet   a page of pictures with their texts
"""
