import AsyncHTTPClient
import CarrelBase
import ControlAPI
import Foundation
import NIOCore
import NIOHTTP1

/// The admin API of one `carreld`, over its Unix socket.
public struct ControlClient: Sendable {
  /// More than any answer holds; a screenshot is the largest.
  private static let largestAnswer = 64 * 1024 * 1024

  public static let patience = Duration.seconds(60)

  /// One for the process, which never ends it: it holds no connection it must close.
  private static let http: HTTPClient = {
    var configuration = HTTPClient.Configuration()
    // A socket that nobody listens on stays so: say it at once.
    configuration.connectionPool.retryConnectionEstablishment = false
    return HTTPClient(
      eventLoopGroup: HTTPClient.defaultEventLoopGroup, configuration: configuration)
  }()

  public let socketPath: String

  public init(socketPath: String) { self.socketPath = socketPath }

  // MARK: Requests

  /// The JSON answer to a request without body.
  public func get<Answer: Decodable>(
    _ path: APIPath, as type: Answer.Type = Answer.self
  ) async throws(ControlClientError) -> Answer {
    try decode(try await send(.GET, path, body: nil), path)
  }

  public func bytes(_ path: APIPath) async throws(ControlClientError) -> [UInt8] {
    try await send(.GET, path, body: nil)
  }

  /// - Parameter limit: for carreld to answer; some requests wait for a guest.
  public func send<Body: Encodable, Answer: Decodable>(
    _ method: HTTPMethod, _ path: APIPath, _ body: Body, as type: Answer.Type = Answer.self,
    within limit: Duration = Self.patience
  ) async throws(ControlClientError) -> Answer {
    try decode(try await send(method, path, body: try encode(body), within: limit), path)
  }

  /// For answers without content.
  public func send<Body: Encodable>(
    _ method: HTTPMethod, _ path: APIPath, _ body: Body
  ) async throws(ControlClientError) {
    _ = try await send(method, path, body: try encode(body))
  }

  public func post<Answer: Decodable>(
    _ path: APIPath, as type: Answer.Type = Answer.self
  ) async throws(ControlClientError) -> Answer {
    try decode(try await send(.POST, path, body: nil), path)
  }

  public func put<Answer: Decodable>(
    _ path: APIPath, as type: Answer.Type = Answer.self
  ) async throws(ControlClientError) -> Answer {
    try decode(try await send(.PUT, path, body: nil), path)
  }

  public func delete(_ path: APIPath) async throws(ControlClientError) {
    _ = try await send(.DELETE, path, body: nil)
  }

  // MARK: One exchange

  private func send(
    _ method: HTTPMethod, _ path: APIPath, body: [UInt8]?, within limit: Duration = Self.patience
  ) async throws(ControlClientError) -> [UInt8] {
    guard let url = URL(httpURLWithSocketPath: socketPath, uri: path.text) else {
      throw ControlClientError(
        .unreachable, "'\(socketPath)' is not the path of a socket: give one with --socket")
    }
    var request = HTTPClientRequest(url: url.absoluteString)
    request.method = method
    if let body {
      request.headers.add(name: "content-type", value: "application/json")
      request.body = .bytes(ByteBuffer(bytes: body))
    }
    let status: UInt
    let bytes: [UInt8]
    do {
      let response = try await Self.http.execute(request, timeout: TimeAmount(limit))
      status = response.status.code
      bytes = [UInt8](buffer: try await response.body.collect(upTo: Self.largestAnswer))
    } catch {
      throw unreachable(error)
    }
    guard (200..<300).contains(status) else { throw refusal(status, bytes) }
    return bytes
  }

  private func unreachable(_ error: any Error) -> ControlClientError {
    let isThere = access(socketPath, F_OK) == 0
    // Its directory may not even be looked into.
    let forbidden = (isThere ? access(socketPath, R_OK | W_OK) != 0 : errno == EACCES)
    if isThere, !forbidden, (error as? IOError)?.errnoCode == ECONNREFUSED {
      // Only a carreld that ended in good order takes its socket away.
      return ControlClientError(
        .unreachable,
        "carreld is not running: nobody listens at \(socketPath) any more. Start it again with "
          + "'carreld' ('systemctl start carreld'); desktops run on meanwhile")
    }
    let remedy =
      forbidden
      ? "it belongs to another user: run this as the user carreld runs as ('sudo carrel …')"
      : "is carreld running? Start it with 'carreld', or name its socket with --socket or "
        + "CARREL_SOCKET"
    return ControlClientError(
      .unreachable, "carreld does not answer at \(socketPath): \(remedy)",
      cause: !isThere || forbidden ? nil : error)
  }

  private func refusal(_ status: UInt, _ bytes: [UInt8]) -> ControlClientError {
    guard let document = try? JSONDecoder().decode(ErrorDocument.self, from: Data(bytes)) else {
      return ControlClientError(
        .unreachable, "\(socketPath) answered with status \(status): is it carreld's?")
    }
    return ControlClientError(.refused(document.kind), document.message)
  }

  private func encode<Body: Encodable>(_ body: Body) throws(ControlClientError) -> [UInt8] {
    do {
      return [UInt8](try JSONEncoder().encode(body))
    } catch {
      throw ControlClientError(.protocolMismatch, "the request cannot be encoded", cause: error)
    }
  }

  private func decode<Answer: Decodable>(
    _ bytes: [UInt8], _ path: APIPath
  ) throws(ControlClientError) -> Answer {
    do {
      return try JSONDecoder().decode(Answer.self, from: Data(bytes))
    } catch {
      throw ControlClientError(
        .protocolMismatch,
        "carreld's answer to \(path.text) is not understood: use the carrel of its version",
        cause: error)
    }
  }
}

/// A path of the API, built from names that somebody typed.
public struct APIPath: Hashable, Sendable {
  public let text: String

  /// `APIPath("pools", name)`: each part is escaped.
  public init(_ parts: String..., query: [(String, String)] = []) {
    self.init(parts, query: query)
  }

  public init(_ parts: [String], query: [(String, String)] = []) {
    let path = parts.map(Self.escape).joined(separator: "/")
    let arguments = query.map { "\(Self.escape($0.0))=\(Self.escape($0.1))" }
    text = "/v1/\(path)" + (arguments.isEmpty ? "" : "?" + arguments.joined(separator: "&"))
  }

  private static func escape(_ text: String) -> String {
    let plain = CharacterSet(
      charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
    // "." and ".." would be taken for directories.
    let escaped = text.addingPercentEncoding(withAllowedCharacters: plain) ?? "%00"
    return escaped.allSatisfy { $0 == "." }
      ? escaped.replacingOccurrences(of: ".", with: "%2E") : escaped
  }
}

/// Why `carreld` did not do it.
public struct ControlClientError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case unreachable
    case refused(ErrorDocument.Kind)
    case protocolMismatch
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}
