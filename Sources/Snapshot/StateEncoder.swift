/// Turns a device's `State` into bytes that a `StateDecoder` opens, in this
/// version of Carrel or a later one. The format is described at `StateValue`.
public struct StateEncoder: Sendable {
  public init() {}

  public func encode(_ value: some Encodable) throws(StateError) -> [UInt8] {
    let node = EncodingNode()
    do {
      try node.fill(with: value, path: [])
    } catch let error as StateError {
      throw error
    } catch {
      throw StateError(
        kind: .unsupported, context: "\(type(of: value)) cannot be saved", cause: error)
    }
    return node.value.serialized
  }
}

/// A place in the tree that containers handed out for it fill in later.
private final class EncodingNode {
  private enum Content {
    case value(StateValue)
    case array([EncodingNode])
    case structure([String: EncodingNode])
  }

  private var content = Content.structure([:])

  var value: StateValue {
    switch content {
    case .value(let value): value
    case .array(let nodes): .array(nodes.map(\.value))
    case .structure(let fields): .structure(fields.mapValues(\.value))
    }
  }

  var count: Int {
    guard case .array(let nodes) = content else { return 0 }
    return nodes.count
  }

  func set(_ value: StateValue) { content = .value(value) }

  func becomeArray() {
    if case .array = content { return }
    content = .array([])
  }

  func becomeStructure() {
    if case .structure = content { return }
    content = .structure([:])
  }

  func append() -> EncodingNode {
    let node = EncodingNode()
    guard case .array(var nodes) = content else { return node }
    content = .value(.null)
    nodes.append(node)
    content = .array(nodes)
    return node
  }

  func field(_ key: String) -> EncodingNode {
    let node = EncodingNode()
    guard case .structure(var fields) = content else { return node }
    content = .value(.null)
    fields[key] = node
    content = .structure(fields)
    return node
  }

  func fill(with value: some Encodable, path: [any CodingKey]) throws {
    switch value {
    // By exact type: every empty array casts to [UInt8].
    case let bytes as [UInt8] where type(of: value) == [UInt8].self: set(.bytes(bytes))
    case let text as String: set(.string(text))
    case let flag as Bool: set(.bool(flag))
    case let number as Double: set(.double(number.bitPattern))
    case let number as Float: set(.float(number.bitPattern))
    case let number as any FixedWidthInteger:
      guard number.bitWidth <= 64 else { throw tooWide(path) }
      set(StateValue(number))
    default:
      try value.encode(to: NodeEncoder(node: self, codingPath: path))
    }
  }

  private func tooWide(_ path: [any CodingKey]) -> StateError {
    StateError(
      kind: .unsupported,
      context: "\(path.map(\.stringValue).joined(separator: ".")) is wider than 64 bits")
  }
}

private struct NodeEncoder: Encoder {
  let node: EncodingNode
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    node.becomeStructure()
    return KeyedEncodingContainer(KeyedEncoder<Key>(node: node, codingPath: codingPath))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    node.becomeArray()
    return UnkeyedEncoder(node: node, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer {
    SingleEncoder(node: node, codingPath: codingPath)
  }
}

private struct KeyedEncoder<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let node: EncodingNode
  let codingPath: [any CodingKey]

  func encodeNil(forKey key: Key) { node.field(key.stringValue).set(.null) }

  func encode<T: Encodable>(_ value: T, forKey key: Key) throws {
    try node.field(key.stringValue).fill(with: value, path: codingPath + [key])
  }

  func encode(_ value: Bool, forKey key: Key) { node.field(key.stringValue).set(.bool(value)) }
  func encode(_ value: String, forKey key: Key) { node.field(key.stringValue).set(.string(value)) }

  func encode(_ value: Double, forKey key: Key) {
    node.field(key.stringValue).set(.double(value.bitPattern))
  }

  func encode(_ value: Float, forKey key: Key) {
    node.field(key.stringValue).set(.float(value.bitPattern))
  }

  func encode(_ value: Int, forKey key: Key) { integer(value, key) }
  func encode(_ value: Int8, forKey key: Key) { integer(value, key) }
  func encode(_ value: Int16, forKey key: Key) { integer(value, key) }
  func encode(_ value: Int32, forKey key: Key) { integer(value, key) }
  func encode(_ value: Int64, forKey key: Key) { integer(value, key) }
  func encode(_ value: UInt, forKey key: Key) { integer(value, key) }
  func encode(_ value: UInt8, forKey key: Key) { integer(value, key) }
  func encode(_ value: UInt16, forKey key: Key) { integer(value, key) }
  func encode(_ value: UInt32, forKey key: Key) { integer(value, key) }
  func encode(_ value: UInt64, forKey key: Key) { integer(value, key) }

  private func integer(_ value: some FixedWidthInteger, _ key: Key) {
    node.field(key.stringValue).set(StateValue(value))
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy keyType: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> {
    encoder(key).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    encoder(key).unkeyedContainer()
  }

  func superEncoder() -> any Encoder {
    NodeEncoder(node: node.field("super"), codingPath: codingPath)
  }

  func superEncoder(forKey key: Key) -> any Encoder { encoder(key) }

  private func encoder(_ key: Key) -> NodeEncoder {
    NodeEncoder(node: node.field(key.stringValue), codingPath: codingPath + [key])
  }
}

private struct UnkeyedEncoder: UnkeyedEncodingContainer {
  let node: EncodingNode
  let codingPath: [any CodingKey]
  var count: Int { node.count }

  func encodeNil() { node.append().set(.null) }

  func encode<T: Encodable>(_ value: T) throws {
    try node.append().fill(with: value, path: codingPath)
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy keyType: Nested.Type
  ) -> KeyedEncodingContainer<Nested> {
    NodeEncoder(node: node.append(), codingPath: codingPath).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
    NodeEncoder(node: node.append(), codingPath: codingPath).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { NodeEncoder(node: node.append(), codingPath: codingPath) }
}

private struct SingleEncoder: SingleValueEncodingContainer {
  let node: EncodingNode
  let codingPath: [any CodingKey]

  func encodeNil() { node.set(.null) }
  func encode<T: Encodable>(_ value: T) throws { try node.fill(with: value, path: codingPath) }
}
