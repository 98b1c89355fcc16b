import Brokering
import Foundation

/// Records as JSON with sorted keys: readable with any SQLite tool, equal records
/// give equal bytes.
public struct JSONRecordCoding: RecordCoding {
  public init() {}

  public func encode<Record: Encodable>(_ record: Record) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return [UInt8](try encoder.encode(record))
  }

  public func decode<Record: Decodable>(
    _ type: Record.Type, from bytes: [UInt8]
  ) throws -> Record {
    try JSONDecoder().decode(type, from: Data(bytes))
  }
}
