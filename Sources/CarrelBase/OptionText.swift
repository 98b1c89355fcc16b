/// The argument of an option such as `FILE,key=value,key=value`. A comma within a part is
/// doubled, as QEMU has it.
public enum OptionText {
  /// What stands between single commas, with one where there were two.
  public static func parts(of text: String) -> [String] {
    var parts: [String.UnicodeScalarView] = []
    var part = String.UnicodeScalarView()
    var rest = text.unicodeScalars[...]
    while let scalar = rest.popFirst() {
      if scalar == ",", rest.first != "," {
        parts.append(part)
        part = String.UnicodeScalarView()
        continue
      }
      if scalar == "," { rest.removeFirst() }
      part.append(scalar)
    }
    return (parts + [part]).map { String($0) }
  }

  /// A path or other text as it stands in a part.
  public static func escaped(_ text: String) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      scalars.append(scalar)
      if scalar == "," { scalars.append(scalar) }
    }
    return String(scalars)
  }
}
