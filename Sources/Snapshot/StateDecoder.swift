/// Opens what a `StateEncoder` wrote. Bytes from anywhere are safe to try: they
/// are rejected with an error, never followed out of bounds.
public struct StateDecoder: Sendable {
  public init() {}

  public func decode<T: Decodable>(
    _ type: T.Type, from bytes: some Collection<UInt8>
  ) throws(StateError) -> T {
    let value = try StateValue(serialized: ArraySlice(bytes))
    do {
      return try NodeDecoder(value: value, codingPath: []).unbox(type)
    } catch let error as StateError {
      throw error
    } catch {
      throw StateError(
        kind: .mismatch,
        context: "saved state is not a \(type); it belongs to another device or version",
        cause: error)
    }
  }
}

private struct NodeDecoder: Decoder, SingleValueDecodingContainer {
  let value: StateValue
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func unbox<T: Decodable>(_ type: T.Type) throws -> T {
    if type == [UInt8].self {
      // Only a [UInt8] is ever written as bytes; an array is what it was before.
      if case .bytes(let bytes) = value, let result = bytes as? T { return result }
    } else if let integer = type as? any FixedWidthInteger.Type {
      if let result = try decodeInteger(integer) as? T { return result }
    } else if case .string(let text) = value, let result = text as? T {
      return result
    } else if case .bool(let flag) = value, let result = flag as? T {
      return result
    } else if case .double(let bits) = value, let result = Double(bitPattern: bits) as? T {
      return result
    } else if case .float(let bits) = value, let result = Float(bitPattern: bits) as? T {
      return result
    }
    return try T(from: self)
  }

  func mismatch(_ wanted: String) -> StateError {
    let place = codingPath.map(\.stringValue).joined(separator: ".")
    return StateError(
      kind: .mismatch,
      context: "saved state: \(place.isEmpty ? "it" : place) is \(value.kindName), not \(wanted)")
  }

  private func decodeInteger<T: FixedWidthInteger>(_ type: T.Type) throws -> T {
    guard let integer = value.integer(type) else { throw mismatch("a value of \(type)") }
    return integer
  }

  // MARK: Decoder

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard case .structure(let fields) = value else { throw mismatch("a structure") }
    return KeyedDecodingContainer(KeyedDecoder<Key>(fields: fields, codingPath: codingPath))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard case .array(let values) = value else { throw mismatch("an array") }
    return UnkeyedDecoder(values: values, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueDecodingContainer { self }

  // MARK: SingleValueDecodingContainer

  func decodeNil() -> Bool { value == .null }

  func decode<T: Decodable>(_ type: T.Type) throws -> T { try unbox(type) }

  func decode(_ type: Bool.Type) throws -> Bool {
    guard case .bool(let flag) = value else { throw mismatch("a truth value") }
    return flag
  }

  func decode(_ type: String.Type) throws -> String {
    guard case .string(let text) = value else { throw mismatch("a string") }
    return text
  }

  func decode(_ type: Double.Type) throws -> Double {
    guard case .double(let bits) = value else { throw mismatch("a Double") }
    return Double(bitPattern: bits)
  }

  func decode(_ type: Float.Type) throws -> Float {
    guard case .float(let bits) = value else { throw mismatch("a Float") }
    return Float(bitPattern: bits)
  }

  func decode(_ type: Int.Type) throws -> Int { try decodeInteger(type) }
  func decode(_ type: Int8.Type) throws -> Int8 { try decodeInteger(type) }
  func decode(_ type: Int16.Type) throws -> Int16 { try decodeInteger(type) }
  func decode(_ type: Int32.Type) throws -> Int32 { try decodeInteger(type) }
  func decode(_ type: Int64.Type) throws -> Int64 { try decodeInteger(type) }
  func decode(_ type: UInt.Type) throws -> UInt { try decodeInteger(type) }
  func decode(_ type: UInt8.Type) throws -> UInt8 { try decodeInteger(type) }
  func decode(_ type: UInt16.Type) throws -> UInt16 { try decodeInteger(type) }
  func decode(_ type: UInt32.Type) throws -> UInt32 { try decodeInteger(type) }
  func decode(_ type: UInt64.Type) throws -> UInt64 { try decodeInteger(type) }
}

private struct KeyedDecoder<Key: CodingKey>: KeyedDecodingContainerProtocol {
  let fields: [String: StateValue]
  let codingPath: [any CodingKey]

  var allKeys: [Key] { fields.keys.compactMap(Key.init(stringValue:)) }

  func contains(_ key: Key) -> Bool { fields[key.stringValue] != nil }

  func decodeNil(forKey key: Key) throws -> Bool { try field(key).decodeNil() }

  func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T {
    try field(key).unbox(type)
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<Nested> {
    try field(key).container(keyedBy: type)
  }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try field(key).unkeyedContainer()
  }

  func superDecoder() throws -> any Decoder {
    NodeDecoder(value: fields["super"] ?? .null, codingPath: codingPath)
  }

  func superDecoder(forKey key: Key) throws -> any Decoder { try field(key) }

  private func field(_ key: Key) throws -> NodeDecoder {
    guard let value = fields[key.stringValue] else {
      throw DecodingError.keyNotFound(
        key,
        DecodingError.Context(
          codingPath: codingPath, debugDescription: "there is no \(key.stringValue)"))
    }
    return NodeDecoder(value: value, codingPath: codingPath + [key])
  }
}

private struct UnkeyedDecoder: UnkeyedDecodingContainer {
  let values: [StateValue]
  let codingPath: [any CodingKey]
  var currentIndex = 0

  var count: Int? { values.count }
  var isAtEnd: Bool { currentIndex >= values.count }

  init(values: [StateValue], codingPath: [any CodingKey]) {
    self.values = values
    self.codingPath = codingPath
  }

  mutating func decodeNil() throws -> Bool {
    guard !isAtEnd else { throw end() }
    guard values[currentIndex] == .null else { return false }
    currentIndex += 1
    return true
  }

  mutating func decode<T: Decodable>(_ type: T.Type) throws -> T {
    let result = try peek().unbox(type)
    currentIndex += 1
    return result
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type
  ) throws -> KeyedDecodingContainer<Nested> {
    let result = try peek().container(keyedBy: type)
    currentIndex += 1
    return result
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
    let result = try peek().unkeyedContainer()
    currentIndex += 1
    return result
  }

  mutating func superDecoder() throws -> any Decoder {
    let result = try peek()
    currentIndex += 1
    return result
  }

  private func peek() throws -> NodeDecoder {
    guard !isAtEnd else { throw end() }
    return NodeDecoder(value: values[currentIndex], codingPath: codingPath)
  }

  private func end() -> DecodingError {
    DecodingError.valueNotFound(
      StateValue.self,
      DecodingError.Context(codingPath: codingPath, debugDescription: "the array ends early"))
  }
}
