/// The arguments of one command, taken one by one; what is left over is an error.
struct QMPArguments {
  private var members: [String: JSON]

  init(_ json: JSON?) throws(QMPError) {
    switch json {
    case nil: members = [:]
    case .object(let object): members = object
    default: throw QMPError(.generic, "QMP input member 'arguments' must be an object")
    }
  }

  mutating func string(_ name: String) throws(QMPError) -> String {
    guard let value = try optionalString(name) else { throw missing(name) }
    return value
  }

  mutating func optionalString(_ name: String) throws(QMPError) -> String? {
    guard let value = members.removeValue(forKey: name) else { return nil }
    guard let text = value.text else { throw wrong(name, "string") }
    return text
  }

  mutating func optionalInteger(_ name: String) throws(QMPError) -> Int? {
    guard let value = members.removeValue(forKey: name) else { return nil }
    guard let whole = value.whole else { throw wrong(name, "integer") }
    return whole
  }

  mutating func integer(_ name: String) throws(QMPError) -> Int {
    guard let value = try optionalInteger(name) else { throw missing(name) }
    return value
  }

  mutating func boolean(_ name: String) throws(QMPError) -> Bool {
    guard let truth = try optionalBoolean(name) else { throw missing(name) }
    return truth
  }

  mutating func optionalBoolean(_ name: String) throws(QMPError) -> Bool? {
    guard let value = members.removeValue(forKey: name) else { return nil }
    guard let truth = value.truth else { throw wrong(name, "boolean") }
    return truth
  }

  mutating func optionalArray(_ name: String) throws(QMPError) -> [JSON]? {
    guard let value = members.removeValue(forKey: name) else { return nil }
    guard let elements = value.elements else { throw wrong(name, "array") }
    return elements
  }

  mutating func array(_ name: String) throws(QMPError) -> [JSON] {
    guard let value = try optionalArray(name) else { throw missing(name) }
    return value
  }

  mutating func object(_ name: String) throws(QMPError) -> QMPArguments {
    guard let value = members.removeValue(forKey: name) else { throw missing(name) }
    guard case .object = value else { throw wrong(name, "object") }
    return try QMPArguments(value)
  }

  mutating func ignore(_ name: String) { members[name] = nil }

  func end() throws(QMPError) {
    guard let name = members.keys.min() else { return }
    throw QMPError(.generic, "Parameter '\(name)' is unexpected")
  }

  private func missing(_ name: String) -> QMPError {
    QMPError(.generic, "Parameter '\(name)' is missing")
  }

  private func wrong(_ name: String, _ type: String) -> QMPError {
    QMPError(.generic, "Invalid parameter type for '\(name)', expected: \(type)")
  }
}
