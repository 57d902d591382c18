"""What made-up census rows are drawn from, shaped after the published shares of UCI's Adult data. No code, no person."""

# Per-mille weights unless said otherwise; each table is scaled to sum 1.
AGE = ([0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], [17, 19, 22, 28, 37, 48, 58, 63, 74, 91])
WEIGHT = ([0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1], [12285, 39460, 117827, 178356, 237051, 379682, 510072, 1484706])
HOURS_NOT_40 = ([0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], [1, 12, 20, 30, 45, 50, 60, 65, 84, 100])
SEX = {"Female": 331, "Male": 669}
WORKCLASS = {
    "Private": 697,
    "Self-emp-not-inc": 78,
    "Local-gov": 64,
    "State-gov": 40,
    "Self-emp-inc": 34,
    "Federal-gov": 30,
    "Without-pay": 1,
    "Never-worked": 1,
    "?": 56,
}
EDUCATION = {  # in the order of education-num, 1 to 16
    "Preschool": 2,
    "1st-4th": 5,
    "5th-6th": 10,
    "7th-8th": 20,
    "9th": 16,
    "10th": 29,
    "11th": 36,
    "12th": 13,
    "HS-grad": 322,
    "Some-college": 224,
    "Assoc-voc": 42,
    "Assoc-acdm": 33,
    "Bachelors": 165,
    "Masters": 53,
    "Prof-school": 18,
    "Doctorate": 13,
}
MARITAL_BY_AGE = {  # ages below 25, 35, 55, and above
    "Married-civ-spouse": (110, 450, 590, 640),
    "Never-married": (846, 385, 140, 55),
    "Divorced": (16, 104, 200, 145),
    "Separated": (13, 35, 40, 22),
    "Widowed": (1, 3, 20, 130),
    "Married-spouse-absent": (11, 15, 12, 12),
    "Married-AF-spouse": (1, 1, 1, 1),
}
RELATIONSHIP_BY_MARITAL = {  # in the order of MARITAL_BY_AGE; Husband and Wife differ by sex
    "Husband": (985, 0, 0, 0, 0, 0, 900),
    "Wife": (0,) * 7,
    "Not-in-family": (2, 440, 540, 410, 550, 505, 0),
    "Own-child": (5, 430, 75, 95, 15, 105, 50),
    "Unmarried": (0, 82, 360, 440, 386, 311, 0),
    "Other-relative": (8, 48, 25, 55, 49, 79, 50),
}
OCCUPATION_BY_EDUCATION = {  # up to 12th, some college, associate degrees, bachelor and above
    "Adm-clerical": (41, 149, 147, 73),
    "Armed-Forces": (1, 1, 1, 1),
    "Craft-repair": (161, 157, 150, 32),
    "Exec-managerial": (25, 95, 120, 245),
    "Farming-fishing": (61, 32, 27, 11),
    "Handlers-cleaners": (91, 49, 21, 7),
    "Machine-op-inspct": (116, 75, 39, 10),
    "Other-service": (196, 116, 79, 25),
    "Priv-house-serv": (16, 4, 2, 1),
    "Prof-specialty": (13, 37, 126, 386),
    "Protective-serv": (8, 23, 33, 14),
    "Sales": (83, 117, 102, 120),
    "Tech-support": (5, 24, 81, 34),
    "Transport-moving": (81, 62, 27, 9),
    "?": (0, 0, 0, 0),
}
OCCUPATION_FEMALE_FACTOR = {  # how much more likely among women, in per cent
    "Adm-clerical": 300,
    "Craft-repair": 15,
    "Handlers-cleaners": 35,
    "Other-service": 220,
    "Priv-house-serv": 900,
    "Protective-serv": 35,
    "Transport-moving": 15,
    "Farming-fishing": 20,
}
RACE = {"White": 854, "Black": 96, "Asian-Pac-Islander": 32, "Amer-Indian-Eskimo": 10, "Other": 8}
COUNTRY = {
    "United-States": 9126,
    "Mexico": 201,
    "Philippines": 62,
    "Germany": 43,
    "Canada": 38,
    "Puerto-Rico": 36,
    "El-Salvador": 34,
    "India": 32,
    "Cuba": 30,
    "England": 29,
    "Jamaica": 25,
    "South": 25,
    "China": 23,
    "Italy": 22,
    "Dominican-Republic": 21,
    "Vietnam": 21,
    "Guatemala": 20,
    "Japan": 19,
    "Poland": 18,
    "Columbia": 18,
    "Taiwan": 16,
    "Haiti": 14,
    "Iran": 13,
    "Portugal": 11,
    "Nicaragua": 10,
    "Peru": 10,
    "France": 9,
    "Greece": 9,
    "Ecuador": 9,
    "Ireland": 7,
    "Hong": 6,
    "Trinadad&Tobago": 6,
    "Cambodia": 6,
    "Thailand": 6,
    "Laos": 6,
    "Yugoslavia": 5,
    "Outlying-US(Guam-USVI-etc)": 4,
    "Honduras": 4,
    "Hungary": 4,
    "Scotland": 4,
    "Holand-Netherlands": 1,
}
CAPITAL_GAIN = {
    0: 9167,
    15024: 150,
    7688: 120,
    7298: 105,
    99999: 65,
    3103: 42,
    5178: 42,
    4386: 60,
    5013: 60,
    8614: 24,
    3325: 45,
    2174: 42,
    594: 40,
    2829: 38,
}
CAPITAL_LOSS = {0: 9533, 1902: 120, 1977: 95, 1887: 85, 1485: 40, 1602: 40, 1669: 45, 1740: 42}
LABEL = ("<=50K", ">50K")

# What the label depends on: added to the log odds.
BIAS = -1.95
SLOPE = 1.2
MARRIED = 2.0
OCCUPATION_SCORE = {
    "Exec-managerial": 0.8,
    "Prof-specialty": 0.5,
    "Tech-support": 0.5,
    "Protective-serv": 0.5,
    "Sales": 0.25,
    "Farming-fishing": -1.0,
    "Handlers-cleaners": -0.8,
    "Other-service": -0.9,
    "Machine-op-inspct": -0.4,
    "Priv-house-serv": -1.5,
}
WORKCLASS_SCORE = {"Federal-gov": 0.4, "Self-emp-inc": 0.3, "Self-emp-not-inc": -0.4, "?": -0.5, "Without-pay": -3.0}
