"""Cases of the alerts of volumes, which tests/platform_cases.py has among its own."""

from platform_series import STEPS, case, full, volume
from rule_cases import level

VOLUMES = (
    case(
        "a database's volume is full for six minutes, and one of another kind",
        {9: (), 14: (), 16: (full("page", "data-postgres-0"),), 22: ()},
        volume("data-postgres-0", level((60, 20), (4, 14), (60, 86)))
        | volume("backups", level((60, 20), (4, 14), (60, 86))),
    ),
    case(
        "the volume of a database of the operator, and of backups, is full",
        {
            29: (full("page", "database-1"),),
            31: (
                full("page", "database-1"),
                full("ticket", "database-1"),
                full("ticket", "backups"),
            ),
            41: (),
        },
        volume("database-1", level((4, 80), (60, 40)))
        | volume("backups", level((4, 80), (60, 40))),
    ),
    case(
        "volumes have 6 % left, and do not fill",
        {58: ()},
        volume("data-postgres-0", level((6, STEPS))) | volume("backups", level((6, STEPS))),
    ),
    case(
        "a volume has 19 % left, and is full in three days",
        {29: (), 58: (full("ticket", "data-prometheus-0"),)},
        volume("data-prometheus-0", f"19-{19 / 8640:.7f}x{STEPS - 1}"),
    ),
    case(
        "a volume has 19 % left, and is full in six days",
        {58: ()},
        volume("data-prometheus-0", f"19-{19 / 17280:.7f}x{STEPS - 1}"),
    ),
    *(
        case(
            f"a volume has {left:g} % left in four days",
            {58: (full("ticket", "data-prometheus-0"),) if left < 0 else ()},
            volume("data-prometheus-0", f"19-{(19 - left) / 11636:.7f}x{STEPS - 1}"),
        )
        for left in (-0.3, 0.5)
    ),
    case(
        "a volume has 25 % left, and is full in three days",
        {58: ()},
        volume("data-prometheus-0", f"25-{25 / 8640:.7f}x{STEPS - 1}"),
    ),
    case(
        "a backup comes for an hour, and an old one goes: six hours tell that it does not fill",
        {440: ()},
        volume("backups", " ".join([level((18, 390)), "18-0.03x60"])),
        steps=450,
        step="1m",
        every="1m",
    ),
    case(
        "one claim fills and another one is low",
        {58: ()},
        volume("a", level((19, STEPS))) | volume("b", f"500-{500 / 8640:.7f}x{STEPS - 1}", 1000),
    ),
)
