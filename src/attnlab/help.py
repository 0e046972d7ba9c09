"""Help and explanations, from the configs themselves; light, since a person waits for them."""


def help_text(conf) -> str:
    return ""


def explain(error, conf, arguments) -> str:
    return str(error)
