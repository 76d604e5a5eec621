# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Three hundred names in twelve scripts, composed of common given and family names."""

# Per script five given and five family names, and the order in which they are written.
_PARTS = {
    "Latin": ("Ada José Li Zoë Jürgen", "Thornquist Núñez Wang Müller Łukaszewski", "{given} {family}"),
    "Cyrillic": ("Анна Фёдор Игорь Ольга Юлия", "Иванова Щербаков Соловьёв Мельник Цветкова", "{given} {family}"),
    "Greek": ("Ελένη Γιώργος Μαρία Νίκος Σοφία", "Παπαδάκη Αγγελόπουλος Ξενάκης Δήμου Θεοδώρου", "{given} {family}"),
    "Arabic": ("أحمد فاطمة يوسف ليلى خالد", "الهاشمي النجار القاسم البغدادي الشريف", "{given} {family}"),
    "Hebrew": ("דוד שרה משה רחל יעקב", "כהן לוי מזרחי פרידמן אברהמי", "{given} {family}"),
    "Devanagari": ("अनिल सुनीता राजेश प्रिया विकास", "शर्मा वर्मा गुप्ता मिश्रा चतुर्वेदी", "{given} {family}"),
    "Bengali": ("অনির্বাণ সুমিতা রাহুল প্রিয়া তানভীর", "চট্টোপাধ্যায় রহমান ঘোষ দাস হোসেন", "{given} {family}"),
    "Tamil": ("கார்த்திக் மீனா முருகன் லட்சுமி அருண்", "சுப்பிரமணியம் ராஜன் குமார் செல்வம் நாதன்", "{given} {family}"),
    "Thai": ("สมชาย มาลี ประเสริฐ สุดา วิชัย", "ใจดี ทองคำ ศรีสุข บุญมา รักไทย", "{given} {family}"),
    "Chinese": ("娜 小明 建国 丽华 伟", "李 王 欧阳 张 陈", "{family}{given}"),
    "Japanese": ("太郎 花子 さくら 健一 美咲", "山田 佐藤 髙橋 渡邊 小林", "{family} {given}"),
    "Korean": ("민수 지은 영희 준호 서연", "김 이 박 남궁 최", "{family}{given}"),
}
NAMES = {
    script: [(order.format(given=one, family=other), one, other) for one in given.split() for other in family.split()]
    for script, (given, family, order) in _PARTS.items()
}
