// Streams raw 8-bit grey frames to a GDKVM Live server and writes the masks that come back.
//
// A whole client of the protocol gdkvm.v1 (docs/protocol.md) in one file, for who writes one for a
// cart. Debian: apt install g++ libasio-dev libwebsocketpp-dev nlohmann-json3-dev, then
//
//   g++ -std=c++17 -O2 -DASIO_STANDALONE stream.cpp -o stream -pthread
//   ./stream ws://127.0.0.1:8000/v1/stream 600 800 52.5 frames.gray masks.labels [KEY]
//
// frames.gray holds frames of 600 x 800 bytes one after the other, row by row, 52.5 of them a
// second; masks.labels gets as many label maps of the same form: 0 background, 1 ventricle, 2 wall,
// 3 atrium. Research use only.

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <websocketpp/client.hpp>
#include <websocketpp/config/asio_no_tls_client.hpp>

using Json = nlohmann::json;
using Client = websocketpp::client<websocketpp::config::asio_client>;
using Connection = websocketpp::connection_hdl;

// A number above 0 that a word of the command line holds.
template <typename Number>
Number positive(const char* name, const std::string& word) {
    std::istringstream words(word);
    Number number{};
    if (!(words >> number) || !words.eof() || !(number > 0))
        throw std::runtime_error(std::string(name) + " is no number above 0: " + word);
    return number;
}

// Appends a number of the width of its type, least significant byte first, whatever the machine.
template <typename Number>
void put(std::string& bytes, Number number) {
    auto rest = static_cast<std::make_unsigned_t<Number>>(number);
    for (std::size_t count = 0; count < sizeof(Number); ++count) {
        bytes.push_back(static_cast<char>(rest & 0xFF));
        rest = static_cast<std::make_unsigned_t<Number>>(rest >> 4 >> 4);
    }
}

// One binary message: the header and the payload.
std::string pack(std::uint64_t seq, std::int64_t time_us, const std::string& payload) {
    std::string bytes = "GDKF";
    put<std::uint8_t>(bytes, 1);   // version
    put<std::uint8_t>(bytes, 0);   // codec gray8
    put<std::uint16_t>(bytes, 0);  // flags
    put<std::uint64_t>(bytes, seq);
    put<std::int64_t>(bytes, time_us);
    put<std::uint32_t>(bytes, static_cast<std::uint32_t>(payload.size()));
    put<std::uint32_t>(bytes, 0);  // reserved
    return bytes + payload;
}

// The label map of a mask as run lengths: per structure background and structure in turn.
std::string labels_of(const Json& mask, const std::vector<std::string>& structures) {
    const auto rows = mask.at("size").at(0).get<std::size_t>();
    const auto columns = mask.at("size").at(1).get<std::size_t>();
    std::string labels(rows * columns, '\0');
    for (std::size_t index = 0; index < structures.size(); ++index) {
        std::size_t place = 0;
        bool is_inside = false;
        for (const auto& count : mask.at("counts").at(structures[index])) {
            const auto length = count.get<std::size_t>();
            if (place + length > labels.size()) throw std::runtime_error("a mask is too long");
            if (is_inside) labels.replace(place, length, length, static_cast<char>(index + 1));
            place += length;
            is_inside = !is_inside;
        }
    }
    return labels;
}

// One session: sends as many frames as there are credits, and one more for each answer.
class Session {
   public:
    Session(Client& client, std::size_t rows, std::size_t columns, double fps,
            std::string frames, std::ostream& masks)
        : client_(client),
          rows_(rows),
          columns_(columns),
          fps_(fps),
          frames_(std::move(frames)),
          masks_(masks),
          count_(frames_.size() / (rows_ * columns_)) {
        if (frames_.size() % (rows_ * columns_) != 0)
            throw std::runtime_error("the frames are not of that size: the last one is cut off");
    }

    bool is_done() const { return is_done_; }

    void open(const Connection& connection) {
        const Json hello = {{"type", "hello"},      {"size", {rows_, columns_}},
                            {"codec", "gray8"},     {"policy", "every"},
                            {"mask_encoding", "rle"}, {"fps", fps_}};
        say(connection, hello);
    }

    void take(const Connection& connection, const std::string& text) {
        const Json message = Json::parse(text);
        const std::string type = message.at("type");
        if (type == "ready") {
            structures_ = message.at("structures").get<std::vector<std::string>>();
            for (int credit = message.at("credits"); credit > 0; --credit) send_next(connection);
        } else if (type == "result") {
            masks_ << labels_of(message.at("mask"), structures_);
            send_next(connection);
        } else if (type == "dropped") {
            send_next(connection);
        } else if (type == "beat") {
            std::cout << "beat: EF " << message.at("ef_percent") << " %\n";
        } else if (type == "summary") {
            const auto& ef = message.at("ef");
            const int results = message.at("results");
            std::cout << results << (results == 1 ? " frame" : " frames") << ", EF "
                      << ef.at("state").get<std::string>() << ' ' << ef.at("percent") << '\n';
            is_done_ = true;
        } else if (type == "error") {
            std::cerr << message.at("message").get<std::string>() << '\n';
        }  // A type that this version does not know is passed over.
    }

   private:
    void say(const Connection& connection, const Json& message) {
        client_.send(connection, message.dump(), websocketpp::frame::opcode::text);
    }

    void send_next(const Connection& connection) {
        if (next_ == count_ && !has_said_bye_) {
            has_said_bye_ = true;
            say(connection, {{"type", "bye"}});
        }
        if (next_ >= count_) return;
        const auto bytes = rows_ * columns_;
        const std::int64_t time_us = std::llround(1e6 * static_cast<double>(next_) / fps_);
        const auto message = pack(next_, time_us, frames_.substr(next_ * bytes, bytes));
        client_.send(connection, message, websocketpp::frame::opcode::binary);
        ++next_;
    }

    Client& client_;
    std::size_t rows_, columns_;
    double fps_;
    std::string frames_;
    std::ostream& masks_;
    std::size_t count_, next_ = 0;
    std::vector<std::string> structures_;
    bool has_said_bye_ = false, is_done_ = false;
};

int main(int argc, char** argv) {
    if (argc < 7 || argc > 8) {
        std::cerr << "usage: stream URL ROWS COLUMNS FPS FRAMES MASKS [KEY]\n";
        return 2;
    }
    try {
        const auto rows = positive<std::int32_t>("ROWS", argv[2]);
        const auto columns = positive<std::int32_t>("COLUMNS", argv[3]);
        const auto fps = positive<double>("FPS", argv[4]);
        std::ifstream file(argv[5], std::ios::binary);
        if (!file) throw std::runtime_error(std::string("cannot read ") + argv[5]);
        std::string frames((std::istreambuf_iterator<char>(file)), {});
        std::ofstream masks(argv[6], std::ios::binary);

        Client client;
        client.clear_access_channels(websocketpp::log::alevel::all);
        client.clear_error_channels(websocketpp::log::elevel::all);
        client.init_asio();
        Session session(client, static_cast<std::size_t>(rows),
                        static_cast<std::size_t>(columns), fps, std::move(frames), masks);
        client.set_open_handler([&](Connection connection) { session.open(connection); });
        client.set_message_handler([&](Connection connection, Client::message_ptr message) {
            session.take(connection, message->get_payload());
        });
        // Handlers are set before get_connection, which copies them.
        client.set_fail_handler([&](Connection handle) {
            const auto failed = client.get_con_from_hdl(handle);
            std::cerr << "no stream: " << static_cast<int>(failed->get_response_code()) << ' '
                      << failed->get_ec().message() << '\n';
        });

        websocketpp::lib::error_code error;
        const auto connection = client.get_connection(argv[1], error);
        if (error) throw std::runtime_error(error.message());
        connection->add_subprotocol("gdkvm.v1");
        if (argc == 8) connection->append_header("Authorization", std::string("Bearer ") + argv[7]);
        client.connect(connection);
        client.run();  // until the socket is closed
        masks.close();
        if (!masks) throw std::runtime_error(std::string("cannot write ") + argv[6]);
        return session.is_done() ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
