/// Changes saved states as somebody with bad intentions would. Shared by the tests.
package enum StateMutation {
  /// An archive with one value of one of its sections changed, and where; `nil` for bytes that
  /// are none.
  package static func change(
    archive bytes: [UInt8], using generator: inout some RandomNumberGenerator
  ) -> (bytes: [UInt8], place: String)? {
    guard let archive = try? StateValue(serialized: bytes[...]),
      case .structure(var fields) = archive, case .structure(var sections) = fields["sections"],
      let name = sections.keys.sorted().randomElement(using: &generator),
      case .bytes(let section) = sections[name],
      let changed = change(state: section, using: &generator)
    else { return nil }
    sections[name] = .bytes(changed.bytes)
    fields["sections"] = .structure(sections)
    return (StateValue.structure(fields).serialized, name + changed.place)
  }

  /// The same with a single state.
  package static func change(
    state bytes: [UInt8], using generator: inout some RandomNumberGenerator
  ) -> (bytes: [UInt8], place: String)? {
    guard let state = try? StateValue(serialized: bytes[...]) else { return nil }
    var left = Int.random(in: 0..<state.count, using: &generator)
    var place = ""
    let changed = state.changing(&left, &place, &generator)
    return (changed.serialized, place)
  }
}

extension StateValue {
  /// How many values it has, those within it included.
  fileprivate var count: Int {
    switch self {
    case .array(let values): values.reduce(1) { $0 + $1.count }
    case .structure(let fields): fields.values.reduce(1) { $0 + $1.count }
    default: 1
    }
  }

  /// Changes the value that is `left` values from here.
  fileprivate func changing(
    _ left: inout Int, _ place: inout String, _ generator: inout some RandomNumberGenerator
  ) -> StateValue {
    guard left > 0 else {
      left = -1
      let changed = changed(&generator)
      place += ": \(brief) -> \(changed.brief)"
      return changed
    }
    left -= 1
    switch self {
    case .array(var values):
      for index in values.indices where left >= 0 {
        guard left < values[index].count else {
          left -= values[index].count
          continue
        }
        place += "[\(index)]"
        values[index] = values[index].changing(&left, &place, &generator)
      }
      return .array(values)
    case .structure(var fields):
      for (key, value) in fields.sorted(by: { $0.key < $1.key }) where left >= 0 {
        guard left < value.count else {
          left -= value.count
          continue
        }
        place += ".\(key)"
        fields[key] = value.changing(&left, &place, &generator)
      }
      return .structure(fields)
    default: return self
    }
  }

  private func changed(_ generator: inout some RandomNumberGenerator) -> StateValue {
    switch self {
    case .null: return .unsigned(.random(in: 0...255, using: &generator))
    case .bool(let value): return .bool(!value)
    case .unsigned(let value):
      let edges: [UInt64] = [
        0, 1, value &+ 1, value &- 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF,
        UInt64(Int64.max), .max, value ^ 1 << UInt64.random(in: 0..<64, using: &generator),
        value ^ 1 << UInt64.random(in: 0..<8, using: &generator),
        .random(in: 0...64, using: &generator),
      ]
      return Bool.random(using: &generator) && value < 1 << 63
        ? .negative(edges.randomElement(using: &generator) ?? 0)
        : .unsigned(edges.randomElement(using: &generator) ?? 0)
    case .negative(let value): return .unsigned(value)
    case .double(let value): return .double(value ^ 0x7FF0_0000_0000_0000)
    case .float(let value): return .float(value ^ 0x7F80_0000)
    case .string(let text): return .string(Bool.random(using: &generator) ? "" : text + text)
    case .bytes(var bytes):
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: return .bytes([])
      case 1: return .bytes(bytes + bytes + [0xFF])
      case 2: return .bytes(Array(bytes.dropLast()))
      default:
        for index in bytes.indices { bytes[index] = .random(in: 0...255, using: &generator) }
        return .bytes(bytes)
      }
    case .array(let values):
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: return .array([])
      case 1: return .array(Array(values.dropLast()))
      case 2: return .array(values.reversed())
      default: return .array(values + values)
      }
    case .structure(var fields):
      if let key = fields.keys.sorted().randomElement(using: &generator) { fields[key] = nil }
      return .structure(fields)
    }
  }

  /// For people.
  private var brief: String {
    switch self {
    case .array(let values): "\(values.count) values"
    case .structure(let fields): fields.keys.sorted().joined(separator: ", ")
    case .bytes(let bytes): "\(bytes.count) bytes"
    case .negative(let value): "\(~Int64(truncatingIfNeeded: value))"
    case .unsigned(let value): "\(value)"
    default: "\(self)"
    }
  }
}
