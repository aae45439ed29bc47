"""The commands, a module each; `cli` loads one when it is called: none pays for another."""
